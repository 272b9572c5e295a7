"""An example or two of every verb, as `--help` shows them."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "demo": ("simprompt demo --out runs/demo", "simprompt demo --seeds 1,2,3"),
    "learn": ("simprompt learn my_photos --new-classes names.txt --out learned",),
    "predict": (
        "simprompt predict learned/prompt new_photos --top 3",
        "simprompt predict learned/prompt a.jpg --class 'border collie' --class poodle --json",
        "simprompt predict learned/prompt new_photos --unknown auto --copy-to sorted",
    ),
    "serve": ("simprompt serve learned/prompt",),
    "export": (
        "simprompt export learned/prompt --to onnx --out exported --int8 --check my_photos",
        "simprompt export learned/prompt --to transformers --class cat --class dog --out head",
    ),
    "explain": ("simprompt explain learned/prompt --images held_out --out explain.html",),
    "push": ("simprompt push learned/prompt USER/my-products --private",),
    "run": (
        "simprompt run --dataset icons/animals --method coop --sar both --seeds 1,2,3",
        "simprompt run --dataset my_photos --model ViT-B-16/openai --sar on --set sar.weight=0.2",
    ),
    "tune": (
        "simprompt tune --dataset icons --sar on --by h --one-se --grid sar.weight=0.1,0.2,0.4",
        "simprompt tune --dataset icons --grid sar.weight=0.1,1 --grid sar.temperature=0.01,0.03",
    ),
    "study": ("simprompt study list", "simprompt study lambda --workers 2"),
    "table": ("simprompt table runs --format markdown",),
    "report": ("simprompt report runs -o report.html",),
    "data list": ("simprompt data list",),
    "data download": ("simprompt data download eurosat",),
    "data check": ("simprompt data check my_photos",),
    "models list": ("simprompt models list",),
    "models download": ("simprompt models download ViT-B-16/openai",),
    "models show": ("simprompt models show icons",),
    "features": ("simprompt features my_photos --model ViT-B-16/openai",),
    "methods list": ("simprompt methods list --json",),
    "novel list": ("simprompt novel list",),
    "novel generate": (
        "simprompt novel generate bundled:100 --dataset icons/animals --out names.json",
        "simprompt novel generate llm --dataset oxford_pets --llm-model llama3.1",
    ),
    "novel inspect": ("simprompt novel inspect bundled --dataset icons/animals --map map.svg",),
    "novel compare": ("simprompt novel compare bundled wordnet --dataset icons/animals",),
    "novel select": (
        "simprompt novel select --from bundled --n 50 --criterion coverage --dataset icons/animals",
    ),
    "doctor": ("simprompt doctor",),
    "bench": ("simprompt bench step --repeats 3",),
}


def shown(verb: str) -> str:
    """The foot of a verb's help; each line is a paragraph, or Rich would join them."""
    lines = EXAMPLES[verb]
    return "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *(f"  {x}" for x in lines)])
