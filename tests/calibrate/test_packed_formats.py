"""Packed layouts, checked byte by byte against the formats that FlashMLA and DeepGEMM document."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import struct

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.kernels.formats import (
    FP8,
    by_columns,
    dequantize_blocks,
    dequantize_groups,
    dequantize_latent,
    pack_exponents,
    pack_index_keys,
    pack_latent,
    power_of_two,
    quantize_blocks,
    quantize_groups,
    quantize_latent,
    unpack_exponents,
    unpack_index_keys,
    unpack_latent,
)

E4M3_ONE = 0x38
"""1.0 in e4m3: exponent bias 7, so 0.0111.000."""
E4M3_MINUS_448 = 0xFE
"""The largest magnitude, negative: 1.1111.110."""


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def test_a_cache_entry_holds_values_then_scales_then_rope():
    values = torch.full((512,), 1.0).to(FP8)
    values[511] = -448.0
    scales = torch.tensor([2.0, 3.0, 4.0, 5.0])
    rope = torch.full((64,), 1.0, dtype=torch.bfloat16)

    entry = pack_latent(values, scales, rope)

    assert entry.shape == (656,)  # 512 + 4 x 4 + 64 x 2
    assert entry[0] == E4M3_ONE
    assert entry[511] == E4M3_MINUS_448
    assert bytes(entry[512:528].tolist()) == struct.pack("<4f", 2, 3, 4, 5)
    assert bytes(entry[528:530].tolist()) == b"\x80\x3f"  # 1.0 in bfloat16: the upper half of 3f800000


def test_cache_entries_unpack_bit_for_bit(generator):
    values = torch.randn(3, 64, 512, generator=generator).to(FP8)
    scales = torch.rand(3, 64, 4, generator=generator)
    rope = torch.randn(3, 64, 64, generator=generator).bfloat16()

    unpacked = unpack_latent(pack_latent(values, scales, rope))

    for before, after in zip((values, scales, rope), unpacked, strict=True):
        assert torch.equal(bits(before), bits(after))


def test_a_block_of_index_keys_holds_all_values_then_all_scales():
    values = torch.full((2, 64, 128), 1.0).to(FP8)
    values[1, 63, 127] = -448.0
    scales = torch.arange(128.0).view(2, 64)

    block = pack_index_keys(values, scales).flatten(1)

    assert block.shape == (2, 64 * 132)
    assert block[0, 0] == E4M3_ONE
    assert block[1, 64 * 128 - 1] == E4M3_MINUS_448
    assert bytes(block[0, 64 * 128 : 64 * 128 + 8].tolist()) == struct.pack("<2f", 0, 1)
    assert bytes(block[1, -4:].tolist()) == struct.pack("<f", 127)


def test_index_keys_unpack_bit_for_bit(generator):
    values = torch.randn(5, 64, 128, generator=generator).to(FP8)
    scales = torch.rand(5, 64, generator=generator)

    after_values, after_scales = unpack_index_keys(pack_index_keys(values, scales))

    assert torch.equal(bits(values), bits(after_values))
    assert torch.equal(scales, after_scales)


def test_each_group_of_128_has_the_scale_of_its_largest_value():
    x = torch.zeros(1, 256)
    x[0, 3], x[0, 200] = 44.8, -8.96

    values, scales = quantize_groups(x)

    assert scales.tolist() == [pytest.approx([0.1, 0.02])]  # 44.8 / 448 and 8.96 / 448
    assert values[0, 3].float() == 448
    assert values[0, 200].float() == -448
    assert dequantize_groups(values, scales)[0, [3, 200]].tolist() == pytest.approx([44.8, -8.96])


def test_quantising_errs_by_at_most_a_sixteenth(generator):
    """e4m3 has 3 bits of mantissa: half a step is 2^-4 of the value, or of the smallest normal 2^-6."""
    x = torch.randn(50, 384, generator=generator)

    values, scales = quantize_groups(x)

    allowed = torch.maximum(x.abs(), scales.repeat_interleave(128, -1) * 2**-6) / 16
    assert ((dequantize_groups(values, scales) - x).abs() <= allowed * 1.0001).all()


def test_zeros_stay_zeros():
    assert not dequantize_groups(*quantize_groups(torch.zeros(2, 128))).any()
    assert not dequantize_blocks(*quantize_blocks(torch.zeros(130, 128))).any()


def test_each_block_of_a_weight_has_its_own_scale_even_the_incomplete_one():
    weight = torch.zeros(200, 256)
    weight[0, 0], weight[127, 255], weight[199, 0] = 448.0, 896.0, -1344.0

    values, scales = quantize_blocks(weight)

    assert values.shape == (200, 256)
    assert scales.tolist() == [[1.0, 2.0], [3.0, 1.0]]
    assert torch.equal(dequantize_blocks(values, scales), weight)


def test_a_latent_entry_keeps_rope_exactly_and_values_within_a_sixteenth(generator):
    cache = torch.randn(10, 576, generator=generator).bfloat16()

    back = dequantize_latent(quantize_latent(cache))

    assert torch.equal(back[:, 512:], cache[:, 512:].float())
    largest = cache[:, :512].float().abs().amax(-1, keepdim=True)
    assert ((back - cache.float())[:, :512].abs() <= largest / 16).all()


@pytest.mark.parametrize("quantize", [quantize_groups, quantize_blocks])
def test_widths_that_blocks_do_not_divide_are_refused(quantize):
    with pytest.raises(ValueError, match="multiple of 128, not 100"):
        quantize(torch.ones(4, 100))


def test_scales_are_rounded_up_to_powers_of_two():
    found = power_of_two(torch.tensor([1.0, 1.0001, 0.3, 0.25, 448.0]))
    assert found.tolist() == [1.0, 2.0, 0.5, 0.25, 512.0]


def test_four_exponents_lie_in_an_int32_the_first_lowest():
    """2^0, 2^1, 2^-1, 2^3 have exponents 127, 128, 126, 130; a fifth one begins the next number."""
    packed = pack_exponents(torch.tensor([[1.0, 2.0, 0.5, 8.0, 4.0]]))
    assert packed.shape == (1, 2)
    assert packed[0].view(torch.int32).tolist() == [127 | 128 << 8 | 126 << 16 | (130 << 24) - (1 << 32), 129]


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("columns", [1, 4, 6])
def test_packed_exponents_come_back_from_columns_16_bytes_apart(rows, columns):
    scales = 2.0 ** torch.arange(2 * rows * columns).remainder(40).sub(20).view(2, rows, columns)
    packed = pack_exponents(scales)
    assert torch.equal(unpack_exponents(packed, columns), scales)
    assert packed.stride()[-2:] == (1, -(-rows // 4) * 4)
    assert by_columns(scales).stride() == (-(-rows // 4) * 4 * columns, 1, -(-rows // 4) * 4)


def test_values_with_powers_of_two_as_scales_use_at_least_half_of_the_range(generator):
    x = torch.randn(5, 256, generator=generator).bfloat16()
    values, scales = quantize_groups(x, powers=True)
    assert torch.equal(power_of_two(scales), scales)
    largest = values.float().abs().unflatten(-1, (2, 128)).amax(-1)
    assert largest.min() >= 224
    assert largest.max() <= 448
