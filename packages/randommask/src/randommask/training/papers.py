"""The papers that a model card names."""

from typing import Final

from scarce_common_utils.model_card import Paper

RANDOM_MASK: Final = Paper(
    "Toward Understanding BERT-Like Pre-Training for DNA Foundation Models",
    "Liang, Chaoqi and Bai, Weiqiang and Qiao, Lifeng and Ren, Yuchen and Sun, Jianle and Ye, Peng and Yan, Hongliang and "
    "Ma, Xinzhu and Zuo, Wangmeng and Ouyang, Wanli",
    2023,
    "2310.07644",
    "liang2023randommask",
)
