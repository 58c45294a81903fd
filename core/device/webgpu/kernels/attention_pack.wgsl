// After attention.wgsl: the head's columns packed for the product behind (rows/pack.wgsl).
storageBarrier();
workgroupBarrier();
first_column = h * P[1].y;
end_column = first_column + P[1].y;
$STAGES
