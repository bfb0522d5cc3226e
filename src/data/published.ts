/** A file to fetch, with what it must turn out to be. */
export interface PublishedFile {
  /** What it is called in the data folder. */
  readonly name: string;
  /** Its path below the base address, as in its repository. */
  readonly path: string;
  /** Hexadecimal. */
  readonly sha256: string;
  readonly bytes: number;
}

/** Where the authors of the data publish it. */
export const PUBLISHED_BASE_URL = 'https://raw.githubusercontent.com/LLu-r/Humor-Generation-2026.22-grpo/main/';

/** The published training sets: 11,536 jokes, and the same jokes with 4,884 texts that are none. */
export const PUBLISHED_FILES: readonly PublishedFile[] = [
  {
    name: 'sft_train.csv',
    path: 'pre_data/zh_humor_with_prompts.csv',
    sha256: '28c7d8cdb24c4acbeb6bca93f67bfdf0e35da9672f0bee85b752b1a91c4c31dd',
    bytes: 1_962_008,
  },
  {
    name: 'rm_train.csv',
    path: 'train_RM_data_zh.csv',
    sha256: 'b9971b3556fc5b935a0336acf4dc7e352e38b5b30b6f5ee47d0b0df99ea92525',
    bytes: 2_573_188,
  },
];
