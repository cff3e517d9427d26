"""The stages: values that make one artifact from files each."""
