"""Four looks: dark, light, high contrast, and one without any colour.

Invariant: a look changes colours only; what a colour says is also said by a word or a mark.
"""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="whis-dark", dark=True, primary="#7aa2c8", secondary="#8fb8a8", accent="#e0b46c", foreground="#d6dae0",
    background="#14171b", surface="#1a1e23", panel="#22272e", success="#8fbf8f", warning="#e0b46c",
    error="#e08080", boost="#262c34",
    variables={"border": "#3a424c", "border-blurred": "#2c333b", "input-selection-background": "#7aa2c8 35%",
               "footer-key-foreground": "#e0b46c", "scrollbar": "#3a424c", "scrollbar-background": "#14171b",
               "muted": "#8a939e", "cursor-back": "#31404f", "quote-back": "#3d3a22"},
)  # fmt: skip
LIGHT = Theme(
    name="whis-light", dark=False, primary="#1f5f8f", secondary="#2f6f5f", accent="#8a4b00", foreground="#1c2127",
    background="#f7f7f5", surface="#efefec", panel="#e4e4e0", success="#1f6b2f", warning="#8a4b00",
    error="#a01f1f", boost="#dcdcd7",
    variables={"border": "#a9aca8", "border-blurred": "#c9cbc6", "input-selection-background": "#1f5f8f 25%",
               "footer-key-foreground": "#8a4b00", "scrollbar": "#b9bcb7", "scrollbar-background": "#f7f7f5",
               "muted": "#5a6168", "cursor-back": "#cfdde8", "quote-back": "#fff0b8"},
)  # fmt: skip
CONTRAST = Theme(
    name="whis-contrast", dark=True, primary="#ffffff", secondary="#00ffff", accent="#ffff00", foreground="#ffffff",
    background="#000000", surface="#000000", panel="#000000", success="#00ff00", warning="#ffff00",
    error="#ff6060", boost="#202020",
    variables={"border": "#ffffff", "border-blurred": "#c0c0c0", "input-selection-background": "#ffff00 60%",
               "footer-key-foreground": "#ffff00", "scrollbar": "#ffffff", "scrollbar-background": "#303030",
               "muted": "#ffffff", "cursor-back": "#0000c0", "quote-back": "#606000",
               "text-muted": "#ffffff", "text-disabled": "#e0e0e0"},
)  # fmt: skip
MONO = Theme(
    name="whis-mono", dark=True, primary="#ffffff", secondary="#ffffff", accent="#ffffff", foreground="#ffffff",
    background="#000000", surface="#000000", panel="#000000", success="#ffffff", warning="#ffffff",
    error="#ffffff", boost="#000000",
    variables={"border": "#ffffff", "border-blurred": "#ffffff", "footer-key-foreground": "#ffffff",
               "muted": "#ffffff", "cursor-back": "#000000", "quote-back": "#000000",
               "block-cursor-text-style": "reverse", "input-cursor-text-style": "reverse",
               "input-selection-background": "#000000"},
)  # fmt: skip
ALL = {"dark": DARK, "light": LIGHT, "contrast": CONTRAST, "mono": MONO}
