"""What an extractor weighs and how fast it is: latency, time per chunk, memory, training steps; alone and side by side."""
