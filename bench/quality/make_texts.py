#!/usr/bin/env python3
"""Held-out text besides encyclopaedic prose.

usage: make_texts.py code OUT.txt                           this repository's own source at COMMIT: C++ and TypeScript
       make_texts.py dialogue OUT.txt SUBBYTE MODEL.gguf    the float model talking, two turns a question, sampled with fixed seeds

texts/dialogue.txt was made so and is stored, since other kernels would sample otherwise. data/calibration.txt has neither.
"""
import json
import pathlib
import subprocess
import sys

COMMIT = "ccc975e43bb92e274ecd980486ec9ba98e0e466e"
CODE_FOLDERS = ("core/runtime", "core/io", "web/engine/src", "apps/cli")
CODE_BYTES = 100_000

QUESTIONS = [
    "How do I get a coffee stain out of a wool jumper?",
    "Explain to a ten-year-old why the sky is blue.",
    "I have eggs, rice and spinach. What can I cook?",
    "My neighbour plays loud music at night. How should I talk to her?",
    "What is the difference between weather and climate?",
    "Write a short poem about a lighthouse.",
    "How does a bicycle stay upright?",
    "Plan a weekend in a small town by the sea.",
    "What should I check before I buy a used car?",
    "Why do cats purr?",
    "Give me three names for a shop that sells tea, with a reason for each.",
    "How can I learn to whistle?",
    "What does a mortgage broker do?",
    "Tell me a joke about a librarian.",
    "How do vaccines work?",
    "I feel nervous before talks. What helps?",
    "What is 15 percent of 240, and how do you work it out?",
    "Summarise the plot of Romeo and Juliet.",
    "How do I write a polite reminder that an invoice is late?",
    "What makes bread rise?",
]
FOLLOW_UPS = ["Can you give an example?", "Why is that?", "Say it again in one sentence.", "What is the most common mistake?"]


def code() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent).stdout

    names = git("ls-tree", "-r", "--name-only", "--full-tree", COMMIT, *CODE_FOLDERS).split()
    names = [n for n in names if n.endswith((".cc", ".h", ".ts"))]
    # A third of each file, so that many kinds come in.
    text = "".join(got[: len(got) // 3] for got in (git("show", f"{COMMIT}:{n}") for n in names))
    return text.encode()[:CODE_BYTES].decode(errors="ignore")


def dialogue(program: str, model: str) -> str:
    with subprocess.Popen([program, "session"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(**request) -> dict:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"]["message"])
            return answer

        ask(op="load", model=model, engine={"threads": 1})
        parts = []
        for i, question in enumerate(QUESTIONS):
            messages = []
            for turn, said in enumerate((question, FOLLOW_UPS[i % len(FOLLOW_UPS)])):
                messages.append({"role": "user", "content": said})
                options = {"max_tokens": 160, "temperature": 0.7, "top_p": 0.95, "seed": 2 * i + turn}
                ask(op="start", request={"messages": messages, **options})
                events = ask(op="run")["events"]
                answer = "".join(e["text"] for e in events if e["type"] == "token").strip()
                messages.append({"role": "assistant", "content": answer})
                parts.append(f"User: {said}\n\nAssistant: {answer}\n\n")
            print(f"{i + 1} of {len(QUESTIONS)}", file=sys.stderr, flush=True)
        process.stdin.close()
    return "".join(parts)


def main() -> None:
    kind, out = sys.argv[1:3]
    pathlib.Path(out).write_text(code() if kind == "code" else dialogue(*sys.argv[3:5]))


if __name__ == "__main__":
    main()
