"""The iterative loop: state, selection, curriculum, stages, jobs, report."""
