"""Talking with a model: how a conversation becomes a prompt, and where a reply ends."""

from dllama_worker.root.chat.choice import choose_template
from dllama_worker.root.chat.context import ChatContext, Reading
from dllama_worker.root.chat.conversation import ChatTemplate, Message, Prompt
from dllama_worker.root.chat.stops import EosDetector, EosState

__all__ = [
    "ChatContext",
    "ChatTemplate",
    "EosDetector",
    "EosState",
    "Message",
    "Prompt",
    "Reading",
    "choose_template",
]
