"""Semi-supervised long-tailed classification: FixMatch with ABC's balanced classifier, plain or iterated by IMWA.

Source    FixMatch (arXiv 2001.07685); Lee et al. 2021, "ABC: Auxiliary Balanced Classifier for Class-Imbalanced Semi-Supervised
          Learning", NeurIPS 2021, and its released code; profiles of labelled and unlabelled counts from DARP, ABC, CReST.
          Which of these IMWA's authors use, and how, is not known to us: the field's protocols, called so. Here two methods
          meet: layermatch (views, criterion, orders) and imwa (the loop), so the recipe lives beside both packages.
"""
