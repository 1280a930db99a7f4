"""What the pipeline classes of diffusers have in common, and where each differs."""

import msgspec


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How pictures are asked for from a class.

    Args:
        image_class: takes one reference for each picture, and how far it may leave it; ``None``:
            the class itself takes a list of them, which then holds for all pictures of a call.
        guidance: the argument that takes the guidance.
        blank_negative: stands for a negative prompt that was not given; ``None``: nothing has to.
        negative_prompt: whether it takes one.
        patch: sides are a multiple of this, times the factor of the VAE.
        references: most reference images of a picture.
        image_sized: whether that class takes a size; otherwise the reference's is it.

    """

    image_class: str | None
    guidance: str = "guidance_scale"
    blank_negative: str | None = None
    negative_prompt: bool = True
    patch: int = 1
    references: int = 1
    image_sized: bool = True


FAMILIES = {
    "Flux2KleinPipeline": Family(image_class=None, negative_prompt=False, patch=2, references=4),
    # Its guidance counts only with a negative prompt; its makers give a space where there is none.
    "QwenImagePipeline": Family(
        image_class="QwenImageImg2ImgPipeline",
        guidance="true_cfg_scale",
        blank_negative=" ",
        patch=2,
    ),
    "StableDiffusionPipeline": Family(
        image_class="StableDiffusionImg2ImgPipeline", image_sized=False
    ),
    "StableDiffusionXLPipeline": Family(
        image_class="StableDiffusionXLImg2ImgPipeline", image_sized=False
    ),
    "ZImagePipeline": Family(image_class="ZImageImg2ImgPipeline", patch=2),
}
"""By the name of the text-to-image class, which stands in a folder's ``model_index.json``."""
