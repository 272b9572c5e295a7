"""An example or two of every verb, as `--help` shows them."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "learn": ("simprompt learn my_photos --new-classes names.txt --out learned",),
    "predict": (
        "simprompt predict learned/prompt new_photos --top 3",
        "simprompt predict learned/prompt a.jpg --class 'border collie' --class poodle --json",
        "simprompt predict learned/prompt new_photos --reject-below auto --copy-to sorted",
    ),
    "add": (
        "simprompt add learned/prompt more_photos",
        "simprompt add learned/prompt --add-class 'border collie' --out learned/more",
    ),
    "serve": ("simprompt serve learned/prompt",),
    "explain": ("simprompt explain learned/prompt --images held_out --out explain.html",),
    "export": (
        "simprompt export learned/prompt --to onnx --out exported --int8 --int8-eval my_photos",
        "simprompt export learned/prompt --to transformers --class cat --class dog --out head",
        "simprompt export learned/prompt --to hub --out USER/my-products --private",
    ),
    "demo": ("simprompt demo --out runs/demo", "simprompt demo --seeds 1,2,3"),
    "run": (
        "simprompt run --dataset icons/animals --method coop --sar both --seeds 1,2,3",
        "simprompt run --dataset my_photos --model ViT-B-16/openai --sar on --set sar.weight=0.2",
    ),
    "tune": (
        "simprompt tune --dataset icons --sar on --metric h --one-se --grid sar.weight=0.1,0.2,0.4",
        "simprompt tune --dataset icons --grid sar.weight=0.1,1 --grid sar.temperature=0.01,0.03",
    ),
    "study": ("simprompt study lambda --workers 2", "simprompt study all --smoke"),
    "report": (
        "simprompt report runs --format markdown --published",
        "simprompt report runs --out report.html",
    ),
    "list": ("simprompt list methods", "simprompt list datasets --json"),
    "show": ("simprompt show coop", "simprompt show icons"),
    "download": ("simprompt download ViT-B-16/openai", "simprompt download eurosat"),
    "check": ("simprompt check my_photos",),
    "encode": ("simprompt encode my_photos --model ViT-B-16/openai",),
    "novel-names": (
        "simprompt novel-names bundled:100 --dataset icons/animals --out names.json",
        "simprompt novel-names llm --dataset oxford_pets --llm-model llama3.1",
    ),
    "doctor": ("simprompt doctor",),
}


def shown(verb: str) -> str:
    """The foot of a verb's help; each line is a paragraph, or Rich would join them."""
    lines = EXAMPLES[verb]
    return "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *(f"  {x}" for x in lines)])
