"""Ids and decodings of texts by a tokenizer.json, as JSON. Usage: encode.py TOKENIZER_JSON TEXTS_JSON"""

import json
import sys

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    texts = json.load(file)
encodings = [tokenizer.encode(text) for text in texts]
print(
    json.dumps(
        {
            "size": tokenizer.get_vocab_size(with_added_tokens=True),
            "ids": [encoding.ids for encoding in encodings],
            "decoded": [tokenizer.decode(encoding.ids, skip_special_tokens=True) for encoding in encodings],
        }
    )
)
