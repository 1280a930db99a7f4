"""Tiny weights of the real pipelines: seeded noise of a few MB, made on the spot.

Shapes of a picture are as in the real ones (a multiple of 8 or 16), so that sizes of the catalog
can be drawn; nothing else about the pictures means anything.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
_BYTES = sorted(ByteLevel.alphabet())


def tiny(kind: str, folder: Path) -> Path:
    """A folder as ``save_pretrained`` leaves it, made at the first call for it.

    Args:
        kind: ``sd``, ``sd-safety``, ``sdxl``, ``klein``, ``qwen`` or ``z-image``.
        folder: where all of them lie; one can be given to several calls and processes.

    """
    made = folder / kind
    if not made.exists():
        torch.manual_seed(1)
        pipeline = _KINDS[kind]()
        draft = folder / f".{kind}-{os.getpid()}"
        pipeline.save_pretrained(draft, safe_serialization=True)
        try:
            draft.rename(made)
        except OSError:  # another process was first
            shutil.rmtree(draft)
    return made


def _clip_tokenizer() -> transformers.CLIPTokenizer:
    letters = [*_BYTES, *(letter + "</w>" for letter in _BYTES)]
    vocabulary = [*letters, "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={token: at for at, token in enumerate(vocabulary)}, merges=[], model_max_length=77
    )


def _clip_text(config: Any, model: Callable[[Any], Any]) -> Any:
    return model(
        config(
            vocab_size=2 * len(_BYTES) + 2,
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=2 * len(_BYTES),
            eos_token_id=2 * len(_BYTES) + 1,
        )
    ).eval()


def _qwen_tokenizer() -> transformers.Qwen2Tokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    vocabulary = {token: at for at, token in enumerate([*_BYTES, *special, *vision])}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocabulary, merges=[], extra_special_tokens=[*special[1:], *vision]
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


_QWEN_TEXT = {
    "vocab_size": 256 + 7,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def _qwen3(layers: int) -> Any:
    config = transformers.Qwen3Config(**_QWEN_TEXT, head_dim=8, num_hidden_layers=layers)
    return transformers.Qwen3ForCausalLM(config).eval()


def _unet(**settings: Any) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **settings,
    )


def _blocks() -> dict[str, Any]:
    return {
        "block_out_channels": (4, 4, 4, 4),
        "norm_num_groups": 2,
        "layers_per_block": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "mid_block_add_attention": False,
    }


def _vae() -> diffusers.AutoencoderKL:
    # Shift and scale as of the real one of Z-Image, which divides by them.
    return diffusers.AutoencoderKL(
        **_blocks(), latent_channels=4, shift_factor=0.1, scaling_factor=0.4
    )


def _flow() -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def _turbo() -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def _stable_diffusion(*, safety: bool = False) -> Any:
    return diffusers.StableDiffusionPipeline(
        unet=_unet(cross_attention_dim=16),
        vae=_vae(),
        text_encoder=_clip_text(transformers.CLIPTextConfig, transformers.CLIPTextModel),
        tokenizer=_clip_tokenizer(),
        scheduler=_turbo(),
        safety_checker=_checker() if safety else None,
        feature_extractor=_clip_processor() if safety else None,
        requires_safety_checker=safety,
    )


def _clip_processor() -> Any:
    return transformers.CLIPImageProcessor(size=32, crop_size=32)


def _checker() -> Any:
    """One that finds every picture unsafe: its thresholds are below any likeness."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-2)
    checker.special_care_embeds_weights.data.fill_(-2)
    return checker


def _stable_diffusion_xl() -> Any:
    return diffusers.StableDiffusionXLPipeline(
        unet=_unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
        ),
        vae=_vae(),
        text_encoder=_clip_text(transformers.CLIPTextConfig, transformers.CLIPTextModel),
        text_encoder_2=_clip_text(
            transformers.CLIPTextConfig, transformers.CLIPTextModelWithProjection
        ),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        scheduler=_turbo(),
    )


def _klein() -> Any:
    # It reads the hidden states of layers 9, 18 and 27 of its text encoder.
    return diffusers.Flux2KleinPipeline(
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        vae=diffusers.AutoencoderKLFlux2(**_blocks(), latent_channels=4),
        text_encoder=_qwen3(28),
        tokenizer=_qwen_tokenizer(),
        scheduler=_flow(),
        is_distilled=True,
    )


def _qwen() -> Any:
    tokenizer = _qwen_tokenizer()
    text = {**_QWEN_TEXT, "num_hidden_layers": 2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config=vision,
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    return diffusers.QwenImagePipeline(
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        scheduler=_flow(),
    )


def _z_image() -> Any:
    return diffusers.ZImagePipeline(
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[8, 4, 4],
            axes_lens=[1024, 512, 512],
        ),
        vae=_vae(),
        text_encoder=_qwen3(2),
        tokenizer=_qwen_tokenizer(),
        scheduler=_flow(),
    )


_KINDS: dict[str, Callable[[], Any]] = {
    "sd": _stable_diffusion,
    "sd-safety": lambda: _stable_diffusion(safety=True),
    "sdxl": _stable_diffusion_xl,
    "klein": _klein,
    "qwen": _qwen,
    "z-image": _z_image,
}
