"""What results look like: tables become charts, a run becomes a page. Knows plotly, and no dashboard."""
