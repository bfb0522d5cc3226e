export { type AddedValue, addedValue, type AddedValueInput } from './baselines/added-value.js';
export { type BaselineItem, type BaselineResult, runBaselines } from './baselines/baselines.js';
export {
  aucDifferenceInterval,
  bootstrapInterval,
  type BootstrapOptions,
  type Interval,
  meanInterval,
  pairedDifferenceInterval,
} from './bootstrap.js';
export { expectedCalibrationError, type ReliabilityBin, reliabilityBins } from './calibration.js';
export { type ClassificationMetrics, classificationMetrics } from './classification.js';
export { compareModels, type Comparison, type TextRecord } from './compare.js';
export { type LengthSplit, splitGainByLength } from './length-split.js';
export { averagePrecision, rocAuc } from './ranking.js';
export { type GeneratedText, summarizeTexts, type TextSummary } from './text-metrics.js';
export { writeRunReport } from './run-report.js';
