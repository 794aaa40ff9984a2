"""A tokenizer of whole words, small enough to read its ids in a test."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}"
    "{% if turn['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "<{{ turn['role'] }}> {{ turn['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = ["[unk]", "<s>", "</s>", "<user>", "<assistant>", "hello", "world", "how", "are", "you"]


def make_tokenizer(*, chat: bool = True, closes: bool = False, bos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that begins every text with <s>, and ends it with </s> when ``closes``."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = ("<s> " if bos else "") + "$A" + (" </s>" if closes else "")
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", additional_special_tokens=["<user>", "<assistant>"]
    )
    tokenizer.chat_template = TEMPLATE if chat else None
    return tokenizer
