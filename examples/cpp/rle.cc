#include "rle.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

std::vector<std::int64_t> RunLengths(const std::string& data) {
  std::vector<std::int64_t> lengths;
  std::size_t i = 0;
  while (i < data.size()) {
    std::int64_t value = 0;
    int shift = 0;
    int group = 0;
    do {
      if (i == data.size() || shift > 55) throw std::runtime_error("the run-lengths are cut off");
      group = data[i++] - 48;
      value |= static_cast<std::int64_t>(group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value -= std::int64_t{1} << shift;
    if (lengths.size() > 2) value += lengths[lengths.size() - 2];
    lengths.push_back(value);
  }
  return lengths;
}

std::vector<std::uint8_t> DecodeMask(const std::string& data, std::size_t height, std::size_t width) {
  std::vector<std::uint8_t> pixels(height * width);
  std::size_t pixel = 0;
  bool is_foreground = false;
  for (const std::int64_t length : RunLengths(data)) {
    const std::size_t end = pixel + static_cast<std::size_t>(length);
    if (length < 0 || end > pixels.size()) throw std::runtime_error("the run-lengths exceed the mask");
    for (; pixel < end; ++pixel) {
      if (is_foreground) pixels[pixel % height * width + pixel / height] = 1;
    }
    is_foreground = !is_foreground;
  }
  return pixels;
}

std::string Describe(const std::string& data, std::size_t height, std::size_t width) {
  const std::vector<std::uint8_t> pixels = DecodeMask(data, height, width);
  std::size_t count = 0, x0 = width, y0 = height, x1 = 0, y1 = 0;
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    if (!pixels[i]) continue;
    const std::size_t x = i % width, y = i / width;
    ++count;
    x0 = std::min(x0, x);
    y0 = std::min(y0, y);
    x1 = std::max(x1, x + 1);
    y1 = std::max(y1, y + 1);
  }
  if (count == 0) return "not in the picture";
  std::ostringstream text;
  text << count << " pixels in " << x0 << "," << y0 << "," << x1 << "," << y1;
  return text.str();
}
