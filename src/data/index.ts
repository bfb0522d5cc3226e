export { checkData, type DataSummary } from './check.js';
export { type DataFolder, type DataSplit, loadDataFile, loadDataFolder, splitFolder } from './folder.js';
export { pullData, type PullOptions, type PulledFile } from './pull.js';
export { type DataTable, type ReadOptions, readRows } from './read.js';
export { type Columns, completionOf, DEFAULT_COLUMNS, headlineOf, placeOf, type Row } from './row.js';
export { type Split, type SplitOptions, splitRows } from './split.js';
export { type Prompt, promptOf, promptsOf, renderPrompt, type Templates } from './templates.js';
