// Decodes masks, as the comment of MaskEncoding in protos/masklet/v1/common.proto describes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// Lengths of runs of background and foreground in turns, down the columns.
std::vector<std::int64_t> RunLengths(const std::string& data);

// The mask, row by row: 1 is foreground, 0 is background.
std::vector<std::uint8_t> DecodeMask(const std::string& data, std::size_t height, std::size_t width);

// A line of text: the number of foreground pixels, and the smallest box around them.
std::string Describe(const std::string& data, std::size_t height, std::size_t width);
