"""One type of every kind of attention, captured as the model computed it, or refused."""

import warnings

import pytest

from tests.zoo.check import check

pytestmark = pytest.mark.slow

EXACT = (
    "bert", "albert", "gpt2", "llama", "mistral", "gemma2", "gpt_oss", "qwen3", "falcon", "bloom", "mpt", "deepseek_v3",
    "cohere2", "modernbert", "jamba", "zamba2", "t5", "bart", "umt5", "swin", "swinv2", "hiera", "vit", "beit",
    "deberta", "deberta-v2", "xlnet", "canine", "pixtral", "clip", "llava", "qwen2_5_vl", "idefics3",
    "siglip2_vision_model", "whisper", "wav2vec2", "wavlm", "rt_detr", "blip_text_model", "musicgen_decoder",
    "decision_transformer", "sam", "qwen3_moe", "olmoe", "nllb-moe", "granitemoe", "qwen2_vl", "ibert", "mgp-str",
    "florence2", "t5gemma2", "longt5", "radio", "groupvit", "qwen2_5_omni_thinker",
)  # fmt: skip
REFUSED = {"longformer": "E-LAYOUT", "prophetnet": "E-LAYOUT", "autoformer": "E-LAYOUT"}


@pytest.mark.parametrize("model_type", EXACT)
def test_exact(model_type: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = check(model_type)
    assert result.verdict == "exact"
    assert result.tiled in ("exact", "exact in float64")


@pytest.mark.parametrize("model_type", REFUSED)
def test_refused(model_type: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = check(model_type)
    assert f"[{REFUSED[model_type]}]" in result.verdict
