// Tracks the rabbit of examples/bunny.mp4 with connect-es; `npm run generate` makes src/gen from the contract.
//
//     npm run connect -- [SERVER [VIDEO]]

import { createReadStream } from "node:fs";
import { fileURLToPath } from "node:url";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { PointLabel } from "./gen/masklet/v1/common_pb.js";
import { TrackingService, TrackRequestSchema } from "./gen/masklet/v1/tracking_pb.js";
import { describe } from "./rle.js";

const server = process.argv[2] ?? "127.0.0.1:50051";
const video = process.argv[3] ?? fileURLToPath(new URL("../../bunny.mp4", import.meta.url));

// A server without TLS speaks HTTP/2 in plain text, which is what http:// means here.
const client = createClient(TrackingService, createGrpcTransport({ baseUrl: `http://${server}` }));

const request = (request: MessageInitShape<typeof TrackRequestSchema>["request"]) =>
  create(TrackRequestSchema, { request });

async function* requests() {
  yield request({ case: "config", value: {} });
  yield request({
    case: "prompt",
    value: { objectId: 1, frameIndex: 0, points: [{ x: 345, y: 400, label: PointLabel.FOREGROUND }] },
  });
  for await (const chunk of createReadStream(video, { highWaterMark: 512 * 1024 })) {
    yield request({ case: "videoChunk", value: chunk });
  }
  yield request({ case: "endOfVideo", value: {} });
  // The end half-closes the call: from here on, results need no acknowledgement.
}

const token = process.env.MASKLET_TOKEN;
const headers: HeadersInit = token ? { authorization: `Bearer ${token}` } : {};

for await (const { response } of client.track(requests(), { headers })) {
  switch (response.case) {
    case "frameResult":
      for (const object of response.value.objects) {
        console.log(`frame ${response.value.frameIndex}, object ${object.objectId}: ${describe(object.mask!)}`);
      }
      break;
    case "error":
      console.error(`the server says: ${response.value.message}`);
      break;
    case "done":
      console.log(`done after ${response.value.frameCount} frames`);
      break;
  }
}
