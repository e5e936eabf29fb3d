/** Asks when each frame is shown: in many videos, those of phones for example, frames do not follow evenly. */
import { computed, effect } from "../ui.js";
import { request } from "../wire/http.js";
import * as s from "./store.js";

const counted = computed(() => (s.video.value && !s.live.value && s.frames.value !== null ? s.video.value.id : ""));

/** @returns {() => void} Ends it. */
export function startTimes() {
  return effect(() => {
    const id = counted.value;
    s.times.value = [];
    // Until they are here, and where they do not come, the clock goes by the average rate.
    if (id) request("GET", `/api/videos/${id}/times`).then((times) => id === counted.value && (s.times.value = times), () => null);
  });
}
