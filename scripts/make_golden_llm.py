"""Writes tests/data/llm_golden.json: what `transformers` answers, greedily and in float32, from the same GGUF file.

Run it where `transformers` and `torch` are installed: `python scripts/make_golden_llm.py MODEL.gguf OUT.json`.
The tests compare our float32 and exact 4-bit graphs with this file, and need neither package.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

NEW_TOKENS = 64
PROBED_LOGITS = 16
QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain in two sentences why the sky is blue.",
    "List three uses of a paper clip.",
    "What is 17 plus 25?",
    "Translate to French: I would like a cup of coffee.",
    "Who wrote Romeo and Juliet?",
    "Give me a recipe for pancakes.",
    "def fibonacci(n):  # continue this Python function",
    "Summarise: The quick brown fox jumps over the lazy dog. — naïve café, 北京, 😀",
)


def main(gguf_path: Path, out_path: Path) -> None:
    """Answer every question and write tokens, text and some logits."""
    torch.manual_seed(0)
    folder, name = str(gguf_path.parent), gguf_path.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    tokenizer.chat_template = GGUFReader(gguf_path).fields["tokenizer.chat_template"].contents()
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, local_files_only=True)
    cases = [answer(model, tokenizer, question) for question in QUESTIONS]
    packages = {package: version(package) for package in ("transformers", "torch")}
    out_path.write_text(json.dumps({"packages": packages, "cases": cases}, ensure_ascii=False, indent=1) + "\n")


def answer(model: Any, tokenizer: Any, question: str) -> dict[str, Any]:
    """Greedy continuation that does not stop at the end token, and the likeliest logits of its first step."""
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    generated: list[int] = []
    with torch.no_grad():
        output = model(ids, use_cache=True)
        first = output.logits[0, -1]
        for _ in range(NEW_TOKENS):
            generated.append(int(output.logits[0, -1].argmax()))
            output = model(torch.tensor([[generated[-1]]]), past_key_values=output.past_key_values, use_cache=True)
    top = first.topk(PROBED_LOGITS)
    return {
        "question": question,
        "prompt": prompt,
        "prompt_token_ids": ids[0].tolist(),
        "token_ids": generated,
        "text": tokenizer.decode(generated, skip_special_tokens=True),
        "first_logits": {str(int(i)): round(float(v), 6) for i, v in zip(top.indices, top.values, strict=True)},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
