"""SAM 2's memory attention without object pointers, in the form of the package's own class."""

from sam2.modeling.memory_attention import MemoryAttention
from torch import Tensor


class SpatialMemoryAttention(MemoryAttention):
    """Attends to the memory maps alone; has the weights of its base class.

    In a network of a few million parameters the pointers' logits outgrew those of the maps, and took all attention.
    """

    def forward(
        self,
        curr: Tensor | list[Tensor],
        memory: Tensor,
        curr_pos: Tensor | list[Tensor] | None = None,
        memory_pos: Tensor | None = None,
        num_obj_ptr_tokens: int = 0,
    ) -> Tensor:
        """Return the conditioned map (t * t, B, C) float32.

        Args:
            curr: (t * t, B, C), the slice's map.
            memory: (K, B, 64) spatial tokens, then the pointers' tokens.
            curr_pos: position encoding of `curr`.
            memory_pos: position encoding of `memory`.
            num_obj_ptr_tokens: how many of K belong to pointers.
        """
        kept = memory.shape[0] - num_obj_ptr_tokens
        query = curr[0] if isinstance(curr, list) else curr
        # Memory is stored in bfloat16; it was the concatenation with float32 pointers that promoted it.
        spatial = memory[:kept].to(query.dtype)
        position = None if memory_pos is None else memory_pos[:kept]
        return super().forward(curr, spatial, curr_pos, position, 0)
