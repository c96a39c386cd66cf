"""The plots of a report: SVG that stands within the page and takes its colours and letters from there."""
