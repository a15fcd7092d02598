"""i-PI: the driver, its template and its sockets."""
