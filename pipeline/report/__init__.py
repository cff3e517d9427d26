"""Page, figures and pictures of a run."""
