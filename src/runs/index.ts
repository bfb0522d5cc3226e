export {
  type Checkpoint,
  type CheckpointRef,
  latestCheckpoint,
  listCheckpoints,
  loadCheckpoint,
} from './checkpoints.js';
export { Interrupted, type StageContext, type StageEvent } from './events.js';
export { readLines } from './json-lines.js';
export { isFinished, type Manifest, readManifest } from './manifest.js';
export { type MetricRow, readMetrics } from './metrics.js';
export {
  type EventFile,
  readEvents,
  readScalars,
  type ScalarPoint,
  type TensorBoardEvent,
} from './tensorboard/reader.js';
export { EventWriter, type EventWriterOptions } from './tensorboard/writer.js';
