"""Write a randomly initialised checkpoint of Intel/dynamic_tinybert's shape, for timing without a download.

    python benchmarks/random_checkpoint.py TOKENIZER_FOLDER OUTPUT

TOKENIZER_FOLDER: any folder with BERT's uncased tokenizer.json.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertForQuestionAnswering


def main(tokenizer_folder: str, output: str) -> None:
    torch.manual_seed(0)
    BertForQuestionAnswering(BertConfig.from_dict({"num_hidden_layers": 6})).save_pretrained(output)
    shutil.copy(Path(tokenizer_folder) / "tokenizer.json", output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer_folder")
    parser.add_argument("output")
    main(**vars(parser.parse_args()))
