"""Training: data, loss, the gradient loop (Lightning). The only room that imports Lightning."""
