/* Preloaded: the time of day is off by the seconds in the file CLOCK_OFFSET. The monotonic clock stays what it is.
   time.time() of Python, and Python's datetime, ask clock_gettime. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("CLOCK_OFFSET");
    if (status || clock != CLOCK_REALTIME || !path) return status;
    char text[32] = "";
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
        close(file);
    }
    return 0;
}
