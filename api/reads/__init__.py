"""Lists and items: access paths, parameters, cursors, and the queries that answer them."""
