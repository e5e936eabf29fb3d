// Tracks the rabbit of examples/bunny.mp4 with gRPC for C++.
//
//     track [SERVER [VIDEO]]

#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "masklet/v1/tracking.grpc.pb.h"
#include "rle.h"

namespace v1 = masklet::v1;

namespace {

using Stream = grpc::ClientReaderWriter<v1::TrackRequest, v1::TrackResponse>;

// Sends a configuration, a click, the file, and the end. Write returns false when the call has ended: then Read and
// Finish say why.
void Send(Stream& stream, std::ifstream& file) {
  v1::TrackRequest request;
  request.mutable_config();
  if (!stream.Write(request)) return;

  v1::Prompt& prompt = *request.mutable_prompt();
  prompt.set_object_id(1);
  v1::Point& point = *prompt.add_points();
  point.set_x(345);
  point.set_y(400);
  point.set_label(v1::POINT_LABEL_FOREGROUND);
  if (!stream.Write(request)) return;

  std::vector<char> chunk(512 * 1024);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), file.gcount() > 0) {
    request.set_video_chunk(chunk.data(), static_cast<std::size_t>(file.gcount()));
    if (!stream.Write(request)) return;
  }
  request.mutable_end_of_video();
  if (!stream.Write(request)) return;
  stream.WritesDone();  // half-closes: from here on, results need no acknowledgement
}

void Show(const v1::FrameResult& frame) {
  for (const v1::ObjectResult& object : frame.objects()) {
    const v1::Mask& mask = object.mask();
    std::cout << "frame " << frame.frame_index() << ", object " << object.object_id() << ": "
              << Describe(mask.data(), mask.height(), mask.width()) << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string server = argc > 1 ? argv[1] : "127.0.0.1:50051";
  const std::string video = argc > 2 ? argv[2] : "examples/bunny.mp4";
  std::ifstream file(video, std::ios::binary);
  if (!file) {
    std::cerr << video << " cannot be read\n";
    return 1;
  }

  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(32 * 1024 * 1024);
  const auto channel = grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::TrackingService::NewStub(channel);

  grpc::ClientContext context;
  if (const char* token = std::getenv("MASKLET_TOKEN")) {
    context.AddMetadata("authorization", std::string("Bearer ") + token);
  }
  const std::unique_ptr<Stream> stream = stub->Track(&context);

  std::thread sender([&] { Send(*stream, file); });
  v1::TrackResponse response;
  while (stream->Read(&response)) {
    if (response.has_frame_result()) Show(response.frame_result());
    if (response.has_error()) std::cerr << "the server says: " << response.error().message() << "\n";
    if (response.has_done()) std::cout << "done after " << response.done().frame_count() << " frames\n";
  }
  sender.join();
  const grpc::Status status = stream->Finish();
  if (!status.ok()) std::cerr << "status " << status.error_code() << ": " << status.error_message() << "\n";
  return status.ok() ? 0 : 1;
}
