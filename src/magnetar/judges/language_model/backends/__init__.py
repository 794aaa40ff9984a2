"""Where a language-model judge's model is: behind an endpoint, or in this process."""

from magnetar.judges.language_model.backends.base import Asking, Backend, Reply

__all__ = ["Asking", "Backend", "Reply"]
