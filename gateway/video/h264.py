"""What H.264's own headers say of the order of its pictures (ITU-T H.264; clauses in the docstrings)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

SLICE: Final = 1
IDR_SLICE: Final = 5
SPS: Final = 7
PPS: Final = 8
_PARTITIONS: Final = (2, 3, 4)

_WITH_CHROMA_FORMAT: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_EXTENDED_RATIO: Final = 255
_P, _B, _I = 0, 1, 2
"""slice_type modulo 5 (table 7-6)."""
_HEADER_BYTES: Final = 64
"""Of a slice: what is read of its header lies in them, with emulation prevention."""


class Unordered(ValueError):
    """The order of the pictures cannot be told from the headers that are read here."""


class _Bits:
    """Reads an RBSP bit by bit (7.2). Raises Unordered at its end."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        self._left -= count
        if self._left < 0:
            raise Unordered("the header ends too early")
        return self._bits >> self._left & ((1 << count) - 1)

    def ue(self) -> int:
        """An Exp-Golomb code (9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 31:
                raise Unordered("a number has too many bits")
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Of a sequence parameter set: what the order of its pictures is read with."""

    frame_num_bits: int
    order_bits: int
    """Bits of pic_order_cnt_lsb; 0: pictures are shown in the order in which they are decoded."""
    reorder: int
    """So many pictures at most come before one in the file and after it on the screen."""
    macroblocks: int
    grey: bool
    least_qp: int


@dataclass(frozen=True, slots=True)
class PictureParameters:
    """Of a picture parameter set: what a slice's header is read with."""

    number: int
    cabac: bool
    second_order: bool
    references: tuple[int, int]
    weighted_p: bool
    weighted_b: bool
    qp: int
    deblocking_told: bool
    redundant: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """An avcC record (ISO/IEC 14496-15, 5.3.3.1) with one SPS and one PPS."""

    sequence: Sequence
    picture: PictureParameters
    parameter_sets: tuple[bytes, bytes]
    """The SPS and the PPS as they stand there."""
    length_bytes: int
    """Of a NAL unit's length."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One packet that holds the whole frame of one picture."""

    disposable: bool
    """No other picture is predicted from it."""
    idr: bool
    frame_num: int
    order_lsb: int


def read_configuration(record: bytes) -> Configuration:
    """The avcC record of a stream.

    Raises Unordered for all but progressive video whose SPS says how far pictures are reordered: a decoder guesses
    what is not said, from the pictures that it gets.
    """
    sps, at = _parameter_set(record, 5, 0xE0)
    pps, _ = _parameter_set(record, at, 0)
    if record[0] != 1:
        raise Unordered("no avcC")
    return Configuration(_sequence(sps), _picture_parameters(pps), (sps, pps), (record[4] & 3) + 1)


def _parameter_set(record: bytes, at: int, reserved: int) -> tuple[bytes, int]:
    """The only one that is counted at `at`, and where it ends."""
    if len(record) < at + 4 or record[at] != reserved + 1:
        raise Unordered("no avcC with one SPS and one PPS")
    end = at + 3 + int.from_bytes(record[at + 1 : at + 3], "big")
    return record[at + 3 : end], end


def _picture_parameters(nal: bytes) -> PictureParameters:
    """7.3.2.2"""
    bits = _Bits(nal[1:])
    number = bits.ue()
    bits.ue()
    cabac, second_order = bool(bits.u(1)), bool(bits.u(1))
    if bits.ue():
        raise Unordered("slice groups")
    references = bits.ue() + 1, bits.ue() + 1
    weighted_p, weighted_b = bool(bits.u(1)), bits.u(2) == 1
    qp = 26 + bits.se()
    bits.se(), bits.se()
    deblocking_told = bool(bits.u(1))
    bits.u(1)
    return PictureParameters(
        number, cabac, second_order, references, weighted_p, weighted_b, qp, deblocking_told, bool(bits.u(1))
    )


def _sequence(nal: bytes) -> Sequence:
    """7.3.2.1.1 and E.1.1"""
    bits = _Bits(nal[1:])
    profile = bits.u(8)
    bits.u(16)
    bits.ue()
    chroma, depth = 1, 8
    if profile in _WITH_CHROMA_FORMAT:
        chroma = bits.ue()
        if chroma == 3 and bits.u(1):
            raise Unordered("colour planes are coded apart")
        depth = 8 + bits.ue()
        bits.ue(), bits.u(1)
        if bits.u(1):
            for index in range(8 if chroma != 3 else 12):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type == 1:
        raise Unordered("the order follows from cycles")
    order_bits = bits.ue() + 4 if order_type == 0 else 0
    bits.ue()
    if bits.u(1):
        raise Unordered("pictures may be missing")
    macroblocks = (bits.ue() + 1) * (bits.ue() + 1)
    if not bits.u(1):
        raise Unordered("a picture may be two fields")
    bits.u(1)
    if bits.u(1):
        for _ in range(4):
            bits.ue()
    if not bits.u(1):
        raise Unordered("no VUI")
    return Sequence(frame_num_bits, order_bits, _reorder(bits), macroblocks, chroma == 0, -6 * (depth - 8))


def _reorder(bits: _Bits) -> int:
    """max_num_reorder_frames (E.1.1)."""
    if bits.u(1) and bits.u(8) == _EXTENDED_RATIO:
        bits.u(32)
    if bits.u(1):
        bits.u(1)
    if bits.u(1):
        bits.u(4)
        if bits.u(1):
            bits.u(24)
    if bits.u(1):
        bits.ue(), bits.ue()
    if bits.u(1):
        bits.u(65)
    hypothetical = [_skip_hypothetical_decoder(bits) if bits.u(1) else False for _ in range(2)]
    if any(hypothetical):
        bits.u(1)
    bits.u(1)
    if not bits.u(1):
        raise Unordered("the SPS does not say how far pictures are reordered")
    bits.u(1), bits.ue(), bits.ue(), bits.ue(), bits.ue()
    return bits.ue()


def _skip_hypothetical_decoder(bits: _Bits) -> bool:
    """E.1.2"""
    count = bits.ue() + 1
    if count > 32:
        raise Unordered("too many buffers")
    bits.u(8)
    for _ in range(count):
        bits.ue(), bits.ue(), bits.u(1)
    bits.u(20)
    return True


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    """7.3.2.1.1.1"""
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def read_picture(data: memoryview, configuration: Configuration) -> Picture:
    """The picture of a packet as MP4 has it, NAL units after their lengths (7.3.1).

    Raises Unordered where the packet does not hold exactly one frame, or holds another SPS or PPS, or where a header is
    damaged so that a decoder may not return the frame.
    """
    picture: Picture | None = None
    at = macroblock = 0
    while at < len(data):
        start = at + configuration.length_bytes
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or at == start:
            raise Unordered("a NAL unit is longer than its packet")
        header = data[start]
        kind = header & 31
        if header & 128 or kind in _PARTITIONS:
            raise Unordered("a NAL unit that is not provided for")
        if kind in (SPS, PPS) and data[start:at] != configuration.parameter_sets[kind - SPS]:
            raise Unordered("other parameters")
        if kind not in (SLICE, IDR_SLICE):
            continue
        bits = _Bits(bytes(data[start + 1 : min(at, start + _HEADER_BYTES)]))
        first = bits.ue()
        if bool(first) != (picture is not None) or not macroblock <= first < configuration.sequence.macroblocks:
            raise Unordered("a picture without its first slice, or a second one")
        macroblock = first
        slice_ = _slice(bits, header, configuration)
        if picture is not None and slice_ != picture:
            raise Unordered("slices of two pictures")
        picture = slice_
    if picture is None:
        raise Unordered("no picture in a packet")
    return picture


def _slice(bits: _Bits, header: int, configuration: Configuration) -> Picture:
    """The picture of a slice, from its header (7.3.3) after first_mb_in_slice; to its end for a disposable one."""
    sequence, parameters = configuration.sequence, configuration.picture
    kind, idr, disposable = bits.ue() % 5, header & 31 == IDR_SLICE, not header >> 5 & 3
    if kind > _I or bits.ue() != parameters.number:
        raise Unordered("a slice of another kind, or with other parameters")
    frame_num = bits.u(sequence.frame_num_bits)
    if idr:
        bits.ue()
    picture = Picture(disposable, idr, frame_num, bits.u(sequence.order_bits))
    if not disposable:
        return picture
    if sequence.order_bits and parameters.second_order:
        bits.se()
    if parameters.redundant and bits.ue():
        raise Unordered("a redundant picture")
    _check_prediction(bits, kind, sequence, parameters)
    if parameters.cabac and kind != _I:
        _within(bits.ue(), 0, 2)
    _within(parameters.qp + bits.se(), sequence.least_qp, 51)
    if parameters.deblocking_told and _within(bits.ue(), 0, 2) != 1:
        _within(bits.se(), -6, 6), _within(bits.se(), -6, 6)
    return picture


def _check_prediction(bits: _Bits, kind: int, sequence: Sequence, parameters: PictureParameters) -> None:
    """num_ref_idx, ref_pic_list_modification (7.3.3.1) and pred_weight_table (7.3.3.2)."""
    lists = {_P: 1, _B: 2, _I: 0}[kind]
    if kind == _B:
        bits.u(1)
    references = list(parameters.references[:lists])
    if lists and bits.u(1):
        references = [_within(bits.ue() + 1, 1, 16) for _ in references]
    for count in references:
        if bits.u(1):
            for _ in range(count + 1):
                operation = _within(bits.ue(), 0, 3)
                if operation == 3:
                    break
                _within(bits.ue(), 0, (1 << sequence.frame_num_bits) - 1)
            else:
                raise Unordered("more references than there are")
    if (kind == _P and parameters.weighted_p) or (kind == _B and parameters.weighted_b):
        _check_weights(bits, sum(references), 1 if sequence.grey else 2)


def _check_weights(bits: _Bits, references: int, planes: int) -> None:
    for _ in range(planes):
        _within(bits.ue(), 0, 7)
    for _, plane in itertools.product(range(references), range(planes)):
        if bits.u(1):
            for _ in range(4 if plane else 2):
                _within(bits.se(), -128, 127)


def _within(value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise Unordered("a number in a slice's header is out of range")
    return value


class PictureOrder:
    """The order in which pictures are shown, from their headers in file order (8.2.1.1)."""

    def __init__(self, sequence: Sequence) -> None:
        self._bits = sequence.order_bits
        self._frame_nums = 1 << sequence.frame_num_bits
        self._reference = 0
        """frame_num of the last picture that others are predicted from: PrevRefFrameNum."""
        self._idrs = self._decoded = 0
        self._high = self._low = 0
        """Of the last picture that others are predicted from: prevPicOrderCntMsb and prevPicOrderCntLsb."""

    def place(self, picture: Picture) -> tuple[int, int]:
        """Sorts as the pictures are shown. Raises Unordered where a picture is missing before this one (7.4.3)."""
        self._decoded += 1
        if picture.frame_num != (0 if picture.idr else (self._reference + 1) % self._frame_nums):
            raise Unordered("a picture is missing")
        if not picture.disposable:
            self._reference = picture.frame_num
        if picture.idr:
            self._idrs += 1
            self._high = self._low = 0
        if not self._bits:
            return self._idrs, self._decoded
        cycle, half, high = 1 << self._bits, 1 << self._bits - 1, self._high
        if picture.order_lsb < self._low and self._low - picture.order_lsb >= half:
            high += cycle
        elif picture.order_lsb > self._low and picture.order_lsb - self._low > half:
            high -= cycle
        if not picture.disposable:
            self._high, self._low = high, picture.order_lsb
        return self._idrs, high + picture.order_lsb
