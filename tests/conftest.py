"""What all tests share."""

import torch

torch.set_num_threads(1)  # as in the study itself: these networks gain nothing from a second thread
