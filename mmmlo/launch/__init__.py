"""What builds and starts runs: training, fine-tuning, transfer, evaluation protocols, studies, publishing."""
