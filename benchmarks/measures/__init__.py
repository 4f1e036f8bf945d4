"""One module for each measure: what is measured and how stands in its docstring, which the page repeats."""
