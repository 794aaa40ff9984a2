"""Figures for papers: the drawings of the pages as SVG, PDF or PNG, with letters as letters."""

from magnetar.reports.figures.files import figure_names, write_figures

__all__ = ["figure_names", "write_figures"]
