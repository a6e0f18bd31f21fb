"""Semi-supervised detection: Unbiased Teacher's recipe on torchvision's Faster R-CNN, plain or iterated by IMWA.

Source    Liu et al. 2021, "Unbiased Teacher for Semi-Supervised Object Detection", arXiv 2102.09480, its released settings. How
          IMWA's authors combine the two is not known to us: what is averaged and where an episode ends is ours (`recipe.py`).
"""
