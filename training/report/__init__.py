"""The evaluation report: one HTML file that a person opens, with figures, plots, worst cases and limits."""
