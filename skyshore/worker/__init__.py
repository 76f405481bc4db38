"""What an edge node and a cloud node share: one WorkerService over any engines, its registration and its energy."""
