"""Reports: evidence and findings in, a structured report and a segmentation out. The only room that knows highdicom."""
