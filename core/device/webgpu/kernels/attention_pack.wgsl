// After attention.wgsl: the head's columns packed for the product behind (rows/pack.wgsl).
storageBarrier();
workgroupBarrier();
$STAGES
