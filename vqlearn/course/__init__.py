"""The course around the notebooks: figures, widgets, exercises, copying, marking and web pages."""
