"""What builds and starts runs: training, resuming, fine-tuning, transfer, studies, publishing."""
