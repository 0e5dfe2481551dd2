"""What is measured on a trained network; the loop needs none of it."""
