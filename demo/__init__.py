"""A synthetic match with exact truth: a demo clip (`demo.clip`) and training views without end (`demo.views`)."""
