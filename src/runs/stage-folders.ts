/** Where a pipeline keeps its stages, in its own folder. */
export const STAGE_FOLDERS = ['sft', 'rm', 'grpo', 'evaluation'] as const;
